"The segmenter: network, batches, training, inference, files."
