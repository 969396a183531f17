"""The verbs: one function per use case. Lock and load, decide, save guarded, then send messages."""
