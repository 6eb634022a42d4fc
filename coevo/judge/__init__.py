"""A language model as judge: rubrics as files, any OpenAI-compatible endpoint or a local model, answers paid for once."""
