"""Register everything with MMRazor: ``custom_imports = dict(imports=['pss_razor.plugin'])`` in a config."""

import pss_razor.datasets
import pss_razor.engine
import pss_razor.estimators
import pss_razor.models  # noqa: F401

import mmrazor.engine
import mmrazor.models  # noqa: F401
