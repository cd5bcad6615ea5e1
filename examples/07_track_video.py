"""Track faces through a video: landmarks, head pose and identities, frame by frame.

python examples/07_track_video.py [NETWORK VIDEO]      leaves tracks.jsonl and tracked.mp4

Without arguments: the shipped ATPN, on a rendered video of two faces that cross.
"""

import sys

import asmkit
from asmkit.plotting import draw_tracks
from asmkit.schemes import scheme

if len(sys.argv) > 2:
    network, source = sys.argv[1], sys.argv[2]
else:
    network = "asmkit-ibug68"  # trained on 300-W: non-commercial research only
    source = asmkit.datasets.synthetic_video(
        seed=3, n_frames=45, size=(480, 360), n_faces=2, scenario="cross"
    )

predictor = asmkit.load(network)
contours = scheme(predictor.scheme).contours if predictor.scheme else ()
found, detections = 0, 0
with (
    asmkit.open_frames(source) as frames,
    asmkit.write_tracks("tracks.jsonl") as table,
    asmkit.write_video("tracked.mp4", frames.fps or 30) as video,
):
    for frame in asmkit.track(frames, predictor, smooth=asmkit.OneEuro()):
        table.write(frame)
        video.write(draw_tracks(frames.image, frame, contours))
        found, detections = found + len(frame.faces), detections + frame.detected
identities = {face.identity for frame in asmkit.read_tracks("tracks.jsonl") for face in frame.faces}
print(f"{found} faces of {len(identities)} people; the detector ran in {detections} frames")
