"""One worker: reads chunks, encodes them and writes their vectors, until the job says otherwise."""
