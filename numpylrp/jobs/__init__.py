"""Long work: cut into chunks that are files of their own, so that it can stop and go on anywhere."""
