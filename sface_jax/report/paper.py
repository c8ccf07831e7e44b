"""Published figures, shown beside ours as context: other data, other sizes, so never a comparison of like with like."""

from __future__ import annotations

SOURCE = "SFace, Boutros et al., IJCB 2022, arXiv 2206.10520"

BENCHMARKS = ("LFW", "AgeDB-30", "CALFW", "CPLFW", "CFP-FP")

# 10-fold accuracy in %, recogniser trained on synthetic pictures and their labels
CLASSIFICATION = {
    "SFace-10": (87.13, 63.30, 73.47, 66.82, 68.84),
    "SFace-20": (90.50, 69.17, 76.35, 71.17, 73.33),
    "SFace-40": (91.43, 69.87, 76.92, 73.42, 73.10),
    "SFace-60": (91.87, 71.68, 77.93, 73.20, 73.86),
}
COMBINED_LFW = 99.13

# mean over the five benchmarks, in %
LATER_SYSTEMS = {
    "SFace": 77.7,
    "SFace2": 81.6,
    "IDiff-Face": 88.2,
    "DCFace": 89.6,
    "Vec2Face": 92.0,
    "UIFace": 93.3,
    "VFace10K": 93.9,
    "CASIA-WebFace (authentic)": 94.8,
}

# read off the published histograms
RELATIONS = {
    "authentic_authentic": {"eer": 0.076, "fmr100": 0.092, "fmr1000": 0.107, "fdr": 5.54},
    "synthetic_synthetic": {"eer": 0.217, "fmr100": 0.623, "fmr1000": 0.840, "fdr": 1.16},
    "authentic_synthetic": {"eer": 0.292, "fmr100": 0.747, "fmr1000": 0.888, "fdr": 0.61, "d_sys": 0.38},
}
SAME_LABEL_MATCH_RATE = 0.116  # at FMR 1e-3 on authentic impostors: 116 times chance
