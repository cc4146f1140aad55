"""Methods of scoring: one file each, which has its formula; `score_neurons(model, task, method="atp")`.

    culnig, culnig-sum, culnig-mean      activation x gradient; max, sum or mean over tokens
    culnig-post, -sum-post, -mean-post   the same, MLP neurons read behind the activation function
    ig, ig-all                           integrated gradients (knowledge neurons)
    atp, atp-qk                          attribution patching, and with AtP*'s correction for q and k
    lape, cape                           entropy of activation over countries, and less language neurons
    mean-difference                      mean activation on the question less that on its control
    random                               what a method that knows nothing gets

A new method is a file here with a `Method` in it, and its name in `registry.METHODS`.
"""
