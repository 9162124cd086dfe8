"Photos, masks and labels: found, decoded, drawn, cut into samples."
