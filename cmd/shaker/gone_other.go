//go:build !unix

package main

import (
	"context"
	"io"
)

// readerGone returns when ctx ends: here, that nobody reads the output any more is noticed at the next line.
func readerGone(ctx context.Context, _ io.Writer) { <-ctx.Done() }
