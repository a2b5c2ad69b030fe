"""Reports of a pretraining run: tables, figures and one page, from the records of its stages.

>>> from trainers import reports
>>> reports.write_report("runs/demo")
PosixPath('runs/demo/report/report.html')
"""

from trainers.reports.write import write_report

__all__ = ["write_report"]
