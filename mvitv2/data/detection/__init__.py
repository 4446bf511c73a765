"""Pictures with boxes and masks: files to the objects a detector trains on."""
