"""`python -m deep_gemm <verb>`."""

from __future__ import annotations

import sys

from deep_gemm.cli.main import main

sys.exit(main())
