"""Train ASMNet with the ASM-assisted loss, and measure it on faces it has not seen.

python examples/05_train_asmnet.py [FOLDER OF ANNOTATED IMAGES]      leaves the folder run/

Without data this is a toy: a very small network, a few rendered faces, seconds of training. With
data the shipped recipe trains for real, which takes a while.
"""

import sys
import tempfile

import asmkit
from asmkit.nn import Recipe, train

if len(sys.argv) > 1:
    annotations = asmkit.read(sys.argv[1], require_images=True)
    recipe = Recipe()
else:
    scratch = tempfile.TemporaryDirectory()
    annotations = asmkit.datasets.synthetic_faces(48, seed=1, size=64).save(scratch.name)
    recipe = Recipe(width=0.35, input_size=32, epochs=3, batch_size=8, warmup_steps=4)

unseen, seen = annotations[:8], annotations[8:]
run = train(seen, "run", recipe)
print("left in", run, ":", *sorted(path.name for path in run.iterdir()))

evaluation = asmkit.evaluate(asmkit.load(run), unseen)
print({key: evaluation.summary[key] for key in ("n", "nme", "normalizer", "pose_mae")})
