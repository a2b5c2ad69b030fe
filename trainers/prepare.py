"""Prepares text for pretraining: vocabulary, token files, manifest.

    python -m trainers.prepare --corpus=docs --vocabulary_pieces=480 --num_sentinels=32
    python -m trainers.prepare --corpus=text --corpus_path='books/*.txt,more.txt'
    python -m trainers.prepare --corpus=c4 --corpus_path=TFDS_FOLDER --vocabulary=t5.model

Prints the folder that it wrote, or found, which is what training reads. With 480 pieces, the 9 MB
of docstrings take half a minute on two cores, and a few MB of files some seconds;
32,000 pieces are trained on 64 MB, where there is so much, in minutes.
"""

from trainers import programs, stopping
from trainers.data.config import DataConfig
from trainers.data.preparation import prepare


@stopping.handled()
def main(config: DataConfig) -> None:
    """Prepares, and prints the folder."""
    print(prepare(config))


if __name__ == "__main__":
    programs.run(main, DataConfig)
