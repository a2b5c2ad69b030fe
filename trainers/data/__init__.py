"""From text to batches: corpora, vocabulary, token files, span corruption, batches."""
