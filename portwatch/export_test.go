package portwatch

// HolderIn is Holder on another procfs.
var HolderIn = holderIn
