// A page that is opened from disk may start no worker, and the search of the theme runs in one. Here the script of a
// worker runs in a hidden frame instead. The name is the one by which the plugin `offline` knows that there is such a script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.inside = this.started(new URL(url, location.href).href)
    }

    async started(url) {
      const frame = document.createElement("iframe")
      frame.hidden = true
      const loaded = new Promise(done => frame.addEventListener("load", done, {once: true}))
      document.body.append(frame)
      await loaded
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
      const script = inside.document.createElement("script")
      script.src = url
      const run = new Promise(done => script.addEventListener("load", done))
      inside.document.body.append(script)
      await run
      return inside
    }

    async postMessage(data) {
      const inside = await this.inside
      inside.dispatchEvent(new inside.MessageEvent("message", {data}))
    }
  }
}
