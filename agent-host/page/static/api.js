// The API, for who has a session. Its token is in sessionStorage, which no other origin reads, and in no cookie.

const key = "rum-session";

/** NoSession says that the page was opened without a link, or that its session has ended. */
export class NoSession extends Error {}

/** begin exchanges the token of the link that the page was opened with, if there is one, for a session. */
export async function begin() {
  const link = location.hash.slice(1);
  if (!/^[A-Za-z0-9_-]{43}$/.test(link)) return;
  history.replaceState(null, "", location.pathname); // it is worth nothing from here on
  const answer = await fetch("/session", { method: "POST", body: link });
  if (answer.ok) sessionStorage.setItem(key, (await answer.json()).session);
}

/** ask asks for a path of the API, and returns the answer if it is a good one. */
export async function ask(path, parameters = {}, method = "GET", signal = undefined) {
  const session = sessionStorage.getItem(key);
  if (!session) throw new NoSession();
  const answer = await fetch(path + "?" + new URLSearchParams(parameters), {
    method, signal, headers: { Authorization: "Bearer " + session },
  });
  if (answer.status === 401) {
    sessionStorage.removeItem(key);
    throw new NoSession();
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer;
}

/** json is ask for a value. */
export async function json(path, parameters, method) {
  return (await ask(path, parameters, method)).json();
}

/** events yields what happens, several at a time where they come so, until the agent ends. */
export async function* events(since) {
  const answer = await ask("/v1/events", since ? { since } : {});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (lines.length) yield lines.map((line) => JSON.parse(line));
  }
}
