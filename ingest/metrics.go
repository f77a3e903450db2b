package ingest

func metricCommands() []command { return nil }
