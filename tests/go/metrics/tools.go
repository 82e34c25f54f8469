//go:build tools

// Package metrics pins the metrics server that the tests run.
package metrics

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
