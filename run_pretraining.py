"""Pretrains an encoder on records of raw text: BERT (MLM + NSP), MLM or ELECTRA.

  python run_pretraining.py --bert_config_file=bert_config.json --input_file='records/*.tfrecord'
      --model_dir=pretraining --train_steps=100000 --train_batch_size=32

  python run_pretraining.py --loss_type=electra --record_dir=records --num_predict=85
      --block_size=4_4_4 --d_model=768 --d_embed=768 --n_head=12 --d_inner=3072
      --model_dir=pretraining

The records are made by create_pretraining_data.py, in BERT's form (--input_file) or in Funnel's
(--record_dir); each form serves every loss and every model family. Without a --do_ flag it trains;
--do_eval evaluates. Checkpoints, metrics.jsonl and TensorBoard's logs are written to --model_dir.
"""

from tasks.settings import Pretraining
from training import app

if __name__ == "__main__":
  app.run_job(Pretraining)
