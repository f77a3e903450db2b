package main

import (
	"os"
	"strings"
	"testing"
)

// dispatchInTest names the variable that has a test binary be mcached, with
// these arguments: for what ends the process, as --help does.
const dispatchInTest = "TEST_DISPATCH"

func TestMain(m *testing.M) {
	if args := os.Getenv(dispatchInTest); args != "" {
		os.Exit(dispatch(strings.Fields(args), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
