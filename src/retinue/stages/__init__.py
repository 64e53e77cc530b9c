"""The stages of the pipeline, one file each. Stages never import stages; they meet in artifacts."""
