// Package strangers bounds the connections at a guest agent that have not said what they
// are, because any user of the host may make them: how many there are, how long one has
// where others want its place, and the processor time of those that come to nothing.
//
// It takes nothing of what they say, and never knows what one becomes.
package strangers
