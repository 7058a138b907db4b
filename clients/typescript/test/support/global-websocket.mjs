// An echo over the WebSocket that Node has itself (from 22 on; in 20 by a flag). Prints how it ended.
import { connect } from "unstall";

const session = await connect(process.argv[2]);
for (let index = 0; index < 5_000; index++) await session.send(`message ${index}`);
let index = 0;
for await (const incoming of session) {
  if (incoming !== `message ${index}`) throw new Error(`${incoming} instead of message ${index}`);
  index += 1;
  if (index === 5_000) break;
}
const { clean, code } = await session.close();
console.log(JSON.stringify({ index, clean, code }));
