"""Fine-tunes an encoder to label words (named entities, parts of speech), evaluates, predicts.

  python run_tagger.py --data_dir=data/conll2003
  python run_tagger.py --train_file=train.txt --eval_file=dev.txt --token_col=1 --label_col=3

Files have a word a line, its columns separated by tabs or spaces, and a blank line after each
sentence. Without a --do_ flag it trains and evaluates: accuracy over words, and for BIO labels
precision, recall and F1 over spans. Checkpoints, metrics and predictions are written to
--model_dir.
"""

from tasks.settings import Tagging
from training import app

if __name__ == "__main__":
  app.run_job(Tagging)
