"""Fine-tunes an encoder on SQuAD v1.1 or v2.0, evaluates it, and answers questions.

  python run_squad.py --train_file=train-v2.0.json --predict_file=dev-v2.0.json --do_train --do_eval
      --version_2_with_negative --output_dir=runs/squad
  python run_squad.py --prepro_split=train --train_file=train-v2.0.json --num_proc=2

Without a --do_ flag it trains and evaluates. Metrics are those of the official scripts, in percent.
Records are written to --output_dir, checkpoints and metrics to --model_dir, and with --do_predict
predictions.json, nbest_predictions.json and null_odds.json to --predict_dir (or model_dir).
"""

from tasks.settings import Squad
from training import app

if __name__ == "__main__":
  app.run_job(Squad)
