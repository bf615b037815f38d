"""An evaluation as others read it: JUnit XML for CI, Markdown for a pull request, an HTML page for an approver."""
