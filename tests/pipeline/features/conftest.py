from tests.pipeline.score.conftest import mlps, model, tokens  # noqa: F401
