"""The Celery side: shells over the services, and the threads that make up for lost messages."""
