"""The language server: findings of the configured targets in an editor, with their fixes as code actions."""
