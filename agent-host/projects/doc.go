// Package projects finds the projects of this user's rum, each of which has a
// rum.toml and a VM, and follows their files.
//
// rum keeps a work directory for each, named after the project's id and the VM, with
// a file in it that names the rum.toml. [Watcher] reads those and nothing else of
// rum's. It takes neither what belongs to another user nor a directory whose name is
// not that which rum gives to the file it names.
//
// Out of scope: making and removing projects, and what the rules mean.
package projects
