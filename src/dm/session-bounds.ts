/**
 * Largest number of messages of one side in a session. A session that needs more is aborted: the peer must be faulty.
 */
export const messageBound = 1024;

/** Largest number of commands that are refused one by one in the answer to a side that has not proved itself. */
export const refusalBound = 16;

/** Most bytes that a session may hold of the other side's package, and of its own. See `Session.weight`. */
export const weightBound = 4 * 1024 * 1024;

/** Bytes that a session takes that holds nothing, and that a callback takes. */
export const baseWeight = 2048;
export const callbackWeight = 200;

/** Bytes that a message with one command takes besides its value, in any coding, at most: header, credential, challenge, statuses. */
export const frameBytes = 2048;
