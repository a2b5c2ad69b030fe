"""Checkpoints: what a run saves, and which one it resumes from.

`format` says how they lie on the disk, `writer` how they are written, `keep` which of them stay,
`reading` how they are found and checked, `models` how a model is made from one.
"""

from trainers.checkpoints.format import CHECKPOINT_FOLDER as CHECKPOINT_FOLDER
from trainers.checkpoints.format import MANIFEST_FILE as MANIFEST_FILE
from trainers.checkpoints.format import MARKER_FILE as MARKER_FILE
from trainers.checkpoints.format import MODEL_FILE as MODEL_FILE
from trainers.checkpoints.format import MODEL_PREFIX as MODEL_PREFIX
from trainers.checkpoints.format import TRAINING_FILE as TRAINING_FILE
from trainers.checkpoints.format import CheckpointWarning as CheckpointWarning
from trainers.checkpoints.format import read_manifest as read_manifest
from trainers.checkpoints.format import step_folder as step_folder
from trainers.checkpoints.keep import Keep as Keep
from trainers.checkpoints.reading import Checkpoint as Checkpoint
from trainers.checkpoints.reading import latest as latest
from trainers.checkpoints.reading import load as load
from trainers.checkpoints.reading import steps as steps
from trainers.checkpoints.writer import Part as Part
from trainers.checkpoints.writer import Writer as Writer
from trainers.checkpoints.writer import save as save
