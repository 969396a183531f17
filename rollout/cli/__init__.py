"""The command `rollout`: parse, call one use case, print. A module per noun or verb."""
