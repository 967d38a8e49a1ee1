"""What each backend of Keras needs: one file per backend, and what their files share."""
