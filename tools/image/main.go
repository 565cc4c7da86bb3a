// Command image makes the container image of a program, without a container engine.
package main

import _ "github.com/google/go-containerregistry/pkg/v1"

func main() {}
