//go:build tools

// Package artifacts pins the tools that make images for the tests.
package artifacts

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
	_ "oras.land/oras/cmd/oras"
)
