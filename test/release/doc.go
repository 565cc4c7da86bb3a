// Package release tries what is shipped, as it is shipped: packages, images and archives from a folder that .ci/release
// made. It has tests only.
package release
