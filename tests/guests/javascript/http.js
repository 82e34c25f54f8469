// Answers HTTP requests, and writes a line to its log for each. By path:
//
// - `/echo` the request's body, as it comes
// - `/fetch/AUTHORITY/PATH` what another server answers
// - `/fail` nothing: it throws an exception
// - anything else: hello, with the path

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  console.log(pathname);
  const [, route, ...rest] = pathname.split("/");
  switch (route) {
    case "echo":
      return new Response(request.body);
    case "fetch":
      return fetch(`http://${rest.join("/")}`);
    case "fail":
      throw new Error("as the client wished");
    default:
      return new Response(`hello from javascript: ${pathname}\n`);
  }
}
