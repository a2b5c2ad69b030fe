"""Small data sets as TensorFlow Datasets leaves them on a disk, in any version."""


def write(folder, name, version, features, splits):
    """Writes a data set.

    Args:
        folder: of all data sets.
        name: such as "c4/en".
        version: such as "3.0.1".
        features: feature → its kind, as TensorFlow Datasets takes them.
        splits: split → rows.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    home = folder / name / version
    home.mkdir(parents=True)
    features = tfds.features.FeaturesDict(features)
    infos = []
    for split, rows in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=str(home),
            dataset_name=name.partition("/")[0],
            split=split,
            filetype_suffix="tfrecord",
        )
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        with tf.io.TFRecordWriter(str(path)) as file:
            for row in rows:
                file.write(features.serialize_example(features.encode_example(row)))
        infos.append(tfds.core.SplitInfo(split, [len(rows)], 0, template))
    tfds.folder_dataset.write_metadata(
        data_dir=str(home), features=features, split_infos=infos, check_data=False
    )
