#!/usr/bin/env bash
# Downloads the text classification data of the Funnel-Transformer paper: IMDB, and the data sets of
# Zhang et al. 2015. Folders that are there are kept.
#
#   bash scripts/download_textcls.sh imdb ag      the named tasks
#   bash scripts/download_textcls.sh              all: imdb ag dbpedia yelp2 yelp5 amazon2 amazon5
#                                                 (1.8 GB)
#   bash scripts/download_textcls.sh --dry_run    prints the commands
#
# Settings (environment variables; CHECKSUMS is explained in download.sh):
#   DATA_ROOT=data                                         target, with a folder for each task
#   IMDB_URL=https://ai.stanford.edu/~amaas/data/sentiment source of IMDB
#   TEXTCLS_URL=https://s3.amazonaws.com/fast-ai-nlp       source of the others
source "$(dirname "$0")/download.sh"

DATA_ROOT=${DATA_ROOT:-data}
IMDB_URL=${IMDB_URL:-https://ai.stanford.edu/~amaas/data/sentiment}
TEXTCLS_URL=${TEXTCLS_URL:-https://s3.amazonaws.com/fast-ai-nlp}

parse "$@"
target=$DATA_ROOT
[ ${#names[@]} -gt 0 ] || names=(imdb ag dbpedia yelp2 yelp5 amazon2 amazon5)
for task in "${names[@]}"; do
  case $task in
    imdb) get_folder "$IMDB_URL/aclImdb_v1.tar.gz" "$DATA_ROOT/aclImdb"; continue ;;
    ag) folder=ag_news_csv ;;
    dbpedia) folder=dbpedia_csv ;;
    yelp2) folder=yelp_review_polarity_csv ;;
    yelp5) folder=yelp_review_full_csv ;;
    amazon2) folder=amazon_review_polarity_csv ;;
    amazon5) folder=amazon_review_full_csv ;;
    *) fail "unknown task $task; known are imdb ag dbpedia yelp2 yelp5 amazon2 amazon5" ;;
  esac
  get_folder "$TEXTCLS_URL/$folder.tgz" "$DATA_ROOT/$folder"
done
