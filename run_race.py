"""Fine-tunes an encoder on multiple choice (RACE, SWAG, your own questions), evaluates, predicts.

  python run_race.py --data_dir=data/RACE --gradient_accumulation_steps=4
  python run_race.py --task_name=jsonl --train_file=train.jsonl --eval_file=dev.jsonl

Without a --do_ flag it trains and evaluates. Records are written to --output_dir; checkpoints,
metrics.jsonl, eval_results.json, best/ and predictions to --model_dir. An example is a question
with N options, which are N sequences: a batch of 16 questions of RACE is 64 sequences of up to 512
tokens.
"""

from tasks.settings import Race
from training import app

if __name__ == "__main__":
  app.run_job(Race)
