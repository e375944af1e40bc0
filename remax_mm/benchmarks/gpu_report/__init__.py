"""Report of what training and inference cost on a GPU: ``tools/analysis_tools/gpu_report.py``.

A report has parts, and a part has cases. Each part runs in a process of its own, and each case stores its
result in a file of its own, so that a failure or the limit of time costs that case alone, and the same
command resumes.
"""
