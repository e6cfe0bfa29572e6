"""The package is `upnext` with all that it needs to run from any folder; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

# What people edit stands at the top of the checkout, and inside of the package.
SHIPPED = {f"upnext.{folder}": folder for folder in ("dbt_project", "campaigns", "sources", "notebooks")}
KINDS = ("sql", "yml", "mjml", "txt", "html", "css", "js", "j2", "json", "ipynb")

setup(
    packages=[*find_packages(include=["upnext", "upnext.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={"": [f"**/*.{kind}" for kind in KINDS]},
)
