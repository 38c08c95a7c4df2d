"""Fine-tunes an encoder on classification or regression, evaluates it, and predicts.

  python run_classifier.py --task_name=cola
  python run_classifier.py --task_name=tsv --train_file=train.tsv --eval_file=dev.tsv
      --text_a_col=sentence --label_col=label --num_train_epochs=2

  python run_classifier.py --mode=train --params=configs/cerebras/params_bert_base_sst2.yaml

Without a --do_ flag it trains and evaluates. Records are written to --output_dir; checkpoints,
metrics.jsonl, eval_results.json, best/ and predictions to --model_dir.
"""

from tasks.settings import Classification
from training import app, cerebras

if __name__ == "__main__":
  app.run_job(Classification, cerebras)
