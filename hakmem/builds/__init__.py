"""What is measured: gates, native builds, revisions, the allocators found here, arms."""
