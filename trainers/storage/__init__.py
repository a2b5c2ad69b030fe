"""Folders in object storage, `gs://…` and `s3://…`: programs work on copies of them.

Training needs what buckets do not have: files that are mapped, appended to, renamed and locked. So
`places` gives a program a folder of this machine for each URL among its flags, `mirror` brings what
the bucket has, sends what the program finishes, and `lease` keeps a second writer away. `copies`
brings an older checkpoint where the newest is damaged, which `trainers.checkpoints` finds out; no
other module knows that there are buckets. `remote` is all that is said to one, through fsspec.
"""

from trainers.storage.copies import bring_older as bring_older
from trainers.storage.copies import unmarked as unmarked
from trainers.storage.mirror import MARKER_FILE as MARKER_FILE
from trainers.storage.places import Kind as Kind
from trainers.storage.places import Places as Places
from trainers.storage.places import is_copy as is_copy
from trainers.storage.places import shown as shown
