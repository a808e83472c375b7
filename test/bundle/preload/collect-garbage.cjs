/** Collects garbage all the time: whatever a program only seems to hold is gone. */
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');

setFlagsFromString('--expose-gc');
setInterval(runInNewContext('gc'), 20).unref();
