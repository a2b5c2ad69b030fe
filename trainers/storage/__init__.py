"""Folders in object storage, `gs://…` and `s3://…`: programs work on copies of them.

Training needs what buckets do not have: files that are mapped, appended to, renamed and locked. So
`places` gives a program a folder of this machine for each URL among its flags, `mirror` brings what
the bucket has, sends what the program finishes, and `lease` keeps a second writer away. `remote` is
all that is said to a bucket, through fsspec. No other module knows that there are buckets.
"""

from trainers.storage.mirror import MARKER_FILE as MARKER_FILE
from trainers.storage.places import Kind as Kind
from trainers.storage.places import Places as Places
from trainers.storage.places import is_copy as is_copy
from trainers.storage.places import shown as shown
